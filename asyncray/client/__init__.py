"""What every process that makes calls has: the owner of its objects, its leases, its session."""
