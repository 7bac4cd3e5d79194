"""The command line: arguments in, one result on stdout, progress on stderr, and a documented exit code."""
