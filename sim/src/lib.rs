//! The wave tank.
