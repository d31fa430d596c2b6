"""Any HTTP endpoint that takes records as JSON."""
