"""The files of a sweep: its folder, their way to a URL and back, how trials on other nodes find them."""
