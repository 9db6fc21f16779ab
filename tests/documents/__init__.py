"""What keeps the documents true: lists made from the program, pictures of real runs, commands to be run."""
