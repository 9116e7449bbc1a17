//! Every body comes back byte for byte, and every distinct piece is kept once.
