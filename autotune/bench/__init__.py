"""A compiled model beside its peers: the same inputs, threads and cores, in interleaved rounds."""
