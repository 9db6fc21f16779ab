"""What an ISO 9660 image says of the files in it: its directories, read in a process of their own."""
