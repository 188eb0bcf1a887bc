"""What the verbs of the command line do, for Python as well: requests into folders that can go on."""
