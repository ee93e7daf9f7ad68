"""The methods that the paper compared, in the order of its Table 1."""

ORDER = ("stnet", "histogene", "hist2st", "thitogene", "bleep", "mclstexp")
