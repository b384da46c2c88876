//! One target: a repository, a ref and a link, from the poll to the flip.
//!
//! [`follow`] is the loop, [`Syncer`] holds what lives from one cycle to the next, `cycle` is one
//! cycle, `decide` and `schedule` are pure. This is the one room that joins remotes, the object
//! store, trees and the volume; none of those knows another.

mod accept;
mod acquire;
mod build;
mod context;
mod cycle;
mod decide;
pub mod follow;
mod housekeeping;
mod pinned;
mod schedule;
mod settings;
mod spare;
mod trees;

pub use accept::{Acceptor, Judgement};
pub use context::Context;
pub use cycle::{Outcome, Syncer};
pub use follow::{Ended, Follower};
pub use settings::{PublishOn, ScheduleConfig, Target};
