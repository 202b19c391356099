//! The reference CSI driver.
