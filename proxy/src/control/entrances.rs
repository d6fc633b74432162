//! Where clients of a pool come in: its listeners, each with what holds there.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{self, Listen};
use crate::metrics::ListenerCounters;
use crate::net::listen::Listener;
use crate::status::ListenerStatus;

/// Where clients of a pool come in, and what holds for them there.
pub struct Entrance {
    listener: RefCell<Arc<config::Listener>>,
    /// What is counted there.
    pub counters: Arc<ListenerCounters>,
}

impl Entrance {
    /// Where these hold.
    pub fn new(listener: config::Listener) -> Self {
        Self { listener: RefCell::new(Arc::new(listener)), counters: Arc::default() }
    }

    /// What holds now.
    pub fn config(&self) -> Arc<config::Listener> {
        self.listener.borrow().clone()
    }

    fn status(&self) -> ListenerStatus {
        let config = self.config();
        ListenerStatus {
            listen: config.at.to_string(),
            tls: config.tls.is_some(),
            counters: self.counters.clone(),
        }
    }
}

/// Clients come in.
pub struct Accepting {
    entrance: Rc<Entrance>,
    listener: Rc<Listener>,
    close: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// All listeners of a pool.
#[derive(Default)]
pub struct Entrances(RefCell<Vec<Accepting>>);

impl Entrances {
    /// Clients come in here, until the task that accepts them is told to close.
    pub fn add(
        &self,
        entrance: Rc<Entrance>,
        listener: Rc<Listener>,
        close: watch::Sender<bool>,
        task: JoinHandle<()>,
    ) {
        self.0.borrow_mut().push(Accepting { entrance, listener, close, task });
    }

    /// Those that are there, for other threads.
    pub fn status(&self) -> Vec<ListenerStatus> {
        self.0.borrow().iter().map(|open| open.entrance.status()).collect()
    }

    /// Takes out those where `is_closed` says so; they are to be closed.
    pub fn take(&self, is_closed: impl Fn(&Listen) -> bool) -> Vec<Accepting> {
        self.0.borrow_mut().extract_if(.., |open| is_closed(&open.entrance.config().at)).collect()
    }

    /// The address of a listener, or one that overlaps, may be taken by another listener of this process.
    pub fn tolerate(&self, at: &Listen) {
        let open = self.0.borrow();
        open.iter()
            .filter(|open| open.entrance.config().at.is_at(at))
            .for_each(|open| open.listener.tolerate(true));
    }

    /// No address may be taken by others, unless all are shared.
    pub fn tolerate_none(&self, is_shared: bool) {
        self.0.borrow().iter().for_each(|open| open.listener.tolerate(is_shared));
    }

    /// What holds for those that come in is what the configuration says by now.
    pub fn renew(&self, config: &config::Pool) {
        for Accepting { entrance, listener, .. } in &*self.0.borrow() {
            if let Some(wanted) = config.listener(&entrance.config().at) {
                entrance.listener.replace(Arc::new(wanted.clone()));
            }
            listener.set_backlog(config.backlog);
        }
    }
}

/// No more clients are accepted than the kernel already has; the listeners are of use for others.
pub async fn close(gone: Vec<Accepting>) -> Vec<(Listen, Rc<Listener>)> {
    for open in &gone {
        let _ = open.close.send(true);
    }
    let mut listeners = Vec::new();
    for Accepting { entrance, listener, close, task } in gone {
        if task.await.is_ok() {
            listeners.push((entrance.config().at.clone(), listener));
        }
        drop(close);
    }
    listeners
}
