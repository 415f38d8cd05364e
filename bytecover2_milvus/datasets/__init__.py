"""The data sets of the field, whose audio lies in a folder: their lists and published protocols as manifests."""
