//! Installing what the other tasks need.

use anyhow::Result;
pub enum Need {
    Kernel,
    Vm,
    StockKernel,
}
pub fn ensure(_needs: &[Need]) -> Result<()> {
    Ok(())
}
