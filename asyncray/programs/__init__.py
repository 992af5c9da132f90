"""What each process of a session runs, from its first line to its last: node, template."""
