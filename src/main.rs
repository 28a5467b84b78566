//! Photon.
fn main() {}
