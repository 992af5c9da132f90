"""The node: grants leases, forks workers from a warm template, watches memory and death."""
