"""Have parts in the cache before anybody reads them."""
