"""The methods of the paper, one file each, and the controls that frame them."""
