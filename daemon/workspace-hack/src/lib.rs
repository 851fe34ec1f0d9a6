//! Empty: this package is its manifest, which switches on the features of dependencies that several packages share.
