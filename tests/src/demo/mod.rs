//! The demo: a victim and a bystander run the same programs side by side, before, during and after a fault.
//!
//! Everything in the table was measured by the programs themselves: curl's clock, fio's clock, sqlite3's errors.

mod disk;
mod net;
mod shell;

use crate::e2e::Lane;

/// One line of the table: what the victim and the bystander measured in one phase.
pub(crate) struct Row {
    phase: &'static str,
    victim: String,
    bystander: String,
}

/// One fault and what it did.
pub(crate) struct Scene {
    title: &'static str,
    /// The command line that was typed.
    command: String,
    /// What the two columns show.
    measured: &'static str,
    rows: Vec<Row>,
}

impl Scene {
    /// Measures both sides before, during and after `inject` holds a fault.
    fn play(
        title: &'static str,
        measured: &'static str,
        layer: &str,
        spec: &str,
        sides: &mut [shell::Shell; 2],
        mut measure: impl FnMut(&mut shell::Shell) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let mut rows = Vec::new();
        let mut both = |phase, sides: &mut [shell::Shell; 2]| -> anyhow::Result<()> {
            let [victim, bystander] = sides;
            rows.push(Row { phase, victim: measure(victim)?, bystander: measure(bystander)? });
            Ok(())
        };
        both("before", sides)?;
        let injection = crate::driver::Injection::start(&["--pid", &sides[0].pid(), layer, spec])?;
        both("during", sides)?;
        injection.heal()?;
        both("after", sides)?;
        let command = format!("fault inject --pid VICTIM {layer} '{spec}'");
        Ok(Self { title, command, measured, rows })
    }

    fn print(&self) {
        println!("\n{}\n  $ {}", self.title, self.command);
        println!("  {:<8}  {:>36}  {:>22}   ({})", "", "victim", "bystander", self.measured);
        for Row { phase, victim, bystander } in &self.rows {
            println!("  {phase:<8}  {victim:>36}  {bystander:>22}");
        }
    }
}

/// Plays every scene this kernel can, and says which it cannot and why.
///
/// # Errors
/// When the stage cannot be set; a fault that does not do what it should is seen in the table.
pub fn run(lane: Lane) -> anyhow::Result<()> {
    let place = if lane == Lane::Native { "this machine's kernel" } else { "a virtual machine" };
    println!("== on {place}");
    for scene in net::scenes(lane)? {
        scene.print();
    }
    if lane.has_block() {
        for scene in disk::scenes()? {
            scene.print();
        }
    }
    Ok(())
}
