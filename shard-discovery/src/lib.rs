//! Which shards exist, where they are, which one owns a key, which are fit.
