//! Leases and homes as this host writes and reads them.

use pointsman_core::event::{Actor, NewEvent};
use pointsman_core::ids::ProjectId;
use serde_json::json;

use super::rows::{HOMES, HOSTS, Home, HostKeys, KEYS, Lease, home_key, host_key};
use super::{GRACE_MS, LEASE_MS, MARGIN_MS, NAME_TAKEN, ROWS_MAX, Shared, View};
use crate::ports::store::{Commit, Expect};
use crate::service::failure::Failure;
use crate::service::kit::{CommitExt, Kit, Loaded};

impl Shared {
    pub(super) async fn renew(&self, kit: &Kit) -> Result<(), Failure> {
        let me = &self.me;
        let decided = kit.decide(|| async {
            let found = kit.load::<Lease>(None, &host_key(&me.host)).await?;
            let (now, mut commit) = (kit.now(), Commit::default());
            let until = now + LEASE_MS;
            let known = self.view.load().hosts.contains_key(&me.host);
            match found.as_ref().map(|found| &found.value) {
                // It was this run's once, and is another's: two hosts of one name, on copies of one data folder.
                Some(lease) if known && lease.boot != me.boot && lease.until > now => {
                    return Err(Failure::refused_with(
                        NAME_TAKEN,
                        format!("a host at {} has this one's name, {}", lease.url, me.host),
                        "Each host needs a data folder of its own, not a copy of another's.",
                        json!({"url": lease.url}),
                    ));
                }
                Some(lease) if lease.boot == me.boot => {}
                Some(_) | None => {
                    let data = json!({"host": me.host, "url": me.url, "volume": me.volume});
                    commit.events.push(NewEvent::new("host.serves", Actor::host(), format!("host:{}", me.host), data));
                }
            }
            let lease = Lease { host: me.host.clone(), boot: me.boot.clone(), url: me.url.clone(), volume: me.volume.clone(), until };
            commit.replace(host_key(&me.host), found.map(|found| found.version), &lease);
            Ok((commit, ()))
        });
        decided.await?;
        Ok(())
    }

    /// Refuses to serve with other keys than the first host of this store has.
    pub(super) async fn compare_keys(kit: &Kit) -> Result<(), Failure> {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let own = HostKeys { fingerprint: hex(&kit.keys.derive("fingerprint of the root key")), receipts: hex(&kit.keys.public_key()) };
        let decided = kit.decide(|| async {
            let mut commit = Commit::default();
            match kit.load::<HostKeys>(None, KEYS).await? {
                None => commit.replace(KEYS, None, &own),
                Some(found) if found.value == own => {}
                Some(_) => {
                    return Err(Failure::refused(
                        "other_keys",
                        "this host's keys are not those of the hosts that serve this store",
                        "Copy `root.key` and `receipt.key` of the first host's data folder to this one's, or name one folder for all as `data.keys`.",
                    ));
                }
            }
            Ok((commit, ()))
        });
        decided.await?;
        Ok(())
    }

    pub(super) async fn look(&self, kit: &Kit) -> Result<View, Failure> {
        let before = self.view.load_full();
        let mut view = View { adopted: before.adopted.clone(), ..View::default() };
        let now = kit.now();
        for (_, Loaded { value: lease, .. }) in kit.load_all::<Lease>(None, HOSTS, ROWS_MAX).await? {
            if lease.until > now {
                view.live.insert(lease.host.clone());
            }
            view.hosts.insert(lease.host.clone(), lease);
        }
        for (key, Loaded { value: home, .. }) in kit.load_all::<Home>(None, HOMES, ROWS_MAX).await? {
            if let Ok(project) = key[HOMES.len()..].parse() {
                view.homes.insert(project, home);
            }
        }
        let mut gone = self.gone.lock();
        gone.retain(|host, _| !view.live.contains(host));
        for home in view.homes.values().filter(|home| !view.live.contains(&home.host)) {
            gone.entry(home.host.clone()).or_insert(now);
        }
        Ok(view)
    }

    /// Takes a project, if nobody has it and its repository is here.
    pub(super) async fn take(&self, kit: &Kit, view: &View, project: ProjectId) -> Result<Option<Home>, Failure> {
        let before = view.homes.get(&project);
        let may = match before {
            None => true,
            // Its repositories were moved to another volume: the record follows, so that others there can take over.
            Some(home) if home.host == self.me.host => home.volume != self.me.volume,
            Some(home) => {
                let since = self.gone.lock().get(&home.host).copied();
                let said_goodbye = !view.hosts.contains_key(&home.host);
                let is_gone = since.is_some_and(|since| said_goodbye || kit.now().since_ms(since) >= GRACE_MS);
                is_gone && home.volume == self.me.volume
            }
        };
        if !may || !kit.repository.has(project).await {
            return Ok(None);
        }
        let (taken, _) = kit.decide(|| self.decide_take(kit, project)).await?;
        Ok(taken)
    }

    async fn decide_take(&self, kit: &Kit, project: ProjectId) -> Result<(Commit, Option<Home>), Failure> {
        let found = kit.load::<Home>(None, &home_key(project)).await?;
        let mut commit = Commit::default();
        let mut from = None;
        if let Some(Loaded { value: home, .. }) = &found {
            if home.host == self.me.host {
                if home.volume == self.me.volume {
                    return Ok((commit, None));
                }
            } else {
                let lease = kit.load::<Lease>(None, &host_key(&home.host)).await?;
                let runs = lease.as_ref().is_some_and(|lease| lease.value.until > kit.now());
                if runs || home.volume != self.me.volume {
                    return Ok((commit, None));
                }
                // Renewed in the last moment, it keeps what it has.
                commit.expects.push((host_key(&home.host), lease.map_or(Expect::Absent, |lease| Expect::Version(lease.version))));
            }
            from = Some(home.host.clone());
        }
        // Who takes has to be there itself.
        match kit.load::<Lease>(None, &host_key(&self.me.host)).await? {
            Some(own) if own.value.boot == self.me.boot && own.value.until > kit.now() + MARGIN_MS => {
                commit.expects.push((host_key(&self.me.host), Expect::Version(own.version)));
            }
            Some(_) | None => return Ok((Commit::default(), None)),
        }
        let epoch = found.as_ref().map_or(0, |found| found.value.epoch) + 1;
        let home = Home { host: self.me.host.clone(), epoch, volume: self.me.volume.clone(), since: kit.now() };
        commit.replace(home_key(project), found.map(|found| found.version), &home);
        let data = json!({"project": project, "host": home.host, "url": self.me.url, "epoch": epoch, "from": from});
        commit.events.push(NewEvent::new("home.taken", Actor::host(), project, data));
        Ok((commit, Some(home)))
    }

    /// Gives this host's lease back, so that others need not wait for its end.
    pub(super) async fn give_back(&self, kit: &Kit) -> Result<(), Failure> {
        let key = host_key(&self.me.host);
        let decided = kit.decide(|| async {
            let mut commit = Commit::default();
            if let Some(found) = kit.load::<Lease>(None, &key).await?
                && found.value.boot == self.me.boot
            {
                commit.expects.push((key.clone(), Expect::Version(found.version)));
                commit.deletes.push(key.clone());
                let data = json!({"host": self.me.host});
                commit.events.push(NewEvent::new("host.left", Actor::host(), format!("host:{}", self.me.host), data));
            }
            Ok((commit, ()))
        });
        decided.await?;
        Ok(())
    }
}
