"""What is shown of images: the images themselves, and beside them the files that are in them."""
