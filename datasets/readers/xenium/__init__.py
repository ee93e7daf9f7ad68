"""The output bundle of 10x Genomics' Xenium Analyzer (Onboard Analysis 1 to 4), over its H&E image.

Positions in the bundle are in µm from the top left corner of the DAPI image. The H&E image is taken afterwards, on
another microscope, and registered in Xenium Explorer, which writes a 3 x 3 matrix from H&E to DAPI pixels.
"""
