//! What those have to know of commands of RESP who look at requests that others make.

use super::Resp;
use super::command::flag;
use super::command::index::lookup;
use super::session::Settings;
use crate::protocol::{Monitoring, Request};

impl Monitoring for Resp {
    fn command_name(Request { decoder, canonical }: Request<'_, Self>) -> &[u8] {
        decoder.head(0, canonical).unwrap_or_default()
    }

    /// As in Redis, not what is for administrators.
    fn is_monitored(Request { decoder, canonical }: Request<'_, Self>) -> bool {
        let row = decoder.head(0, canonical).and_then(lookup);
        let command =
            row.map(|row| decoder.head(1, canonical).and_then(|word| row.subcommand(word)).unwrap_or(row));
        command.is_none_or(|command| !command.flags.has(flag::ADMIN))
    }

    fn may_monitor(settings: &Settings) -> bool {
        settings.monitor
    }

    fn monitored(line: &[u8], out: &mut Vec<u8>) {
        out.extend([b"+", line, b"\r\n"].concat());
    }
}
