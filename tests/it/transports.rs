//! The main job over the network.
