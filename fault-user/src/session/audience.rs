//! The injections of a session without `--events`, for whoever looks on.

use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{MapData, RingBuf};

use super::{error::SessionError, events::ring};
use crate::{
    beacon::SharedFace,
    kernel::{
        control::{ControlBlock, monotonic_ns},
        load::{LoadError, Loaded, find},
    },
    report::events::{EventWriter, Recent},
};

/// For so long after a look the programs tell what they do: the next look is expected to come before.
const LOOK_NS: u64 = 5_000_000_000;
/// Events read at one look, which is more than the ring holds: more may come meanwhile.
const MOST: usize = 1024;

/// The programs tell nothing while nobody looks. Then as much as the ring holds between two looks; the rest is not missed by
/// anybody, and not counted as lost.
pub struct Audience {
    control: ControlBlock,
    face: SharedFace,
    recent: Arc<Recent>,
    ring: Mutex<RingBuf<MapData>>,
}

impl Audience {
    /// Takes the ring buffer out of the object.
    pub(super) fn new(loaded: &mut Loaded, face: SharedFace) -> Result<Self, SessionError> {
        let control = ControlBlock::new(find(&loaded.ebpf, "CONTROL")?).map_err(LoadError::from)?;
        let ring = Mutex::new(ring(&mut loaded.ebpf)?);
        Ok(Self { control, face, recent: Arc::default(), ring })
    }

    /// What was told until the last look.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// What was told until now, from when somebody began to look; and for some seconds more will be.
    pub(crate) fn look(&self) -> &Recent {
        self.control.events_until_ns.store(monotonic_ns().saturating_add(LOOK_NS));
        let face = self.face.clone();
        let rule_of = move |generation, slot| face.get().rule_in(generation, slot);
        let mut writer = EventWriter::keeping(Arc::clone(&self.recent), Box::new(rule_of));
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..MOST {
            let Some(item) = ring.next() else { break };
            // A sink takes everything.
            if writer.drain(Some(item)).is_err() {
                break;
            }
        }
        &self.recent
    }
}
