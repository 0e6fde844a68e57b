//! The whole gateway through its socket: stock clients, an outside oracle, refusals, rubbish.

mod common;

mod gateway {
    mod fuzz;
    mod kafka;
    mod oracle;
    mod refusals;
    mod routes;
}
