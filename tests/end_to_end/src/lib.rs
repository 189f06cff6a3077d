//! The harness: clusters, processes and clients that the tests share.
