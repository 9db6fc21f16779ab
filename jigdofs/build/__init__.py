"""Building an image as a file of its own: what download and make-image share."""
