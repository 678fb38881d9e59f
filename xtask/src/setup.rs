//! Installing what the other tasks need.

use anyhow::Result;
pub enum Need {
    Kernel,
    Vm,
}
pub fn ensure(_needs: &[Need]) -> Result<()> {
    Ok(())
}
