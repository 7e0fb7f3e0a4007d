"""One way to measure: a runner over samples, a store of what is done, tables, and statistics of them."""
