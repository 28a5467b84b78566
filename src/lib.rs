//! Photon.
