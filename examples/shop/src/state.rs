//! The state that handlers share.

use crate::{board::Board, database::Database, files::Files, mail::Mail, password::Passwords};

#[derive(Clone)]
pub struct App {
    pub board: Board,
    pub database: Database,
    pub files: Files,
    pub mail: Mail,
    pub passwords: Passwords,
}
