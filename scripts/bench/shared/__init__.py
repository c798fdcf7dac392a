"""What several benchmarks use: tables, trained versions, servers, peers in environments of their own, a load."""
