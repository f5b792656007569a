"""What is wrong, or worth knowing, with CTs and their masks: the known traps, each of them one check in a table."""
