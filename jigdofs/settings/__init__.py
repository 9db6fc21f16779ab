"""Settings: what files and the environment say, for the options that the command line leaves out."""
