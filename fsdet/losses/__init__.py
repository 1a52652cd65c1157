"""The loss terms, one file each, and the criterion that weighs them."""
