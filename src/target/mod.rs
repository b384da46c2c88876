//! One target: a repository, a ref and a link, from the poll to the flip.
//!
//! [`follow`] is the loop, [`Syncer`] holds what lives from one cycle to the next, `cycle` is one
//! cycle, `decide` and `schedule` are pure. This is the one room that joins remotes, the object
//! store, trees and the volume; none of those knows another.

mod accept;
mod acquire;
mod build;
mod check;
mod context;
mod cycle;
mod decide;
mod differences;
pub mod follow;
mod housekeeping;
mod pinned;
mod schedule;
mod scrub;
mod settings;
mod spare;
mod trees;

pub use accept::{Acceptor, Judgement, Proposal};
pub use check::acceptors;
pub use context::Context;
pub use cycle::{Outcome, Syncer};
pub use differences::StoreDifferences;
pub use follow::{Ended, Follower};
pub use settings::{
    CheckUrlConfig, ExecConfig, GateConfig, HooksConfig, PublishOn, ScheduleConfig, SyncWhen,
    Target,
};
