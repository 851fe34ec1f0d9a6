//! Each operation of each level by itself.
