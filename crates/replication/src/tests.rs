use weir_types::{
    BrokerId, Durability, KnownBatch, KnownProducer, LeaderEpoch, Offset, Producer, ProducerId,
};

use crate::*;

const LOG: Log = log(90, 90, 100);

const fn log(high_watermark: Offset, flushed: Offset, written: Offset) -> Log {
    Log { log_start: 0, high_watermark, ends: Ends { written, flushed } }
}

fn member(broker: i32) -> Member {
    Member { broker: BrokerId(broker), epoch: i64::from(broker) * 10 }
}

fn record(isr: &[i32], min_insync: usize) -> Record {
    Record {
        leader_epoch: 3,
        partition_epoch: 7,
        min_insync,
        isr: isr.iter().copied().map(member).collect(),
        replicas: [1, 2, 3].map(BrokerId).to_vec(),
        eligible: Vec::new(),
    }
}

fn leads(durability: Durability, record: Record, log: &Log) -> Leader {
    Leader::begin(BrokerId(1), durability, record, log, 0)
}

fn leader() -> Leader {
    leads(Durability::Fsync, record(&[1], 1), &LOG)
}

fn batch(base_sequence: i32, base_offset: Offset, records: i32) -> KnownBatch {
    let last_offset = base_offset + i64::from(records) - 1;
    KnownBatch { base_sequence, base_offset, last_offset, leader_epoch: 3, append_time_ms: 7 }
}

fn attempt(epoch: i32, base_sequence: i32, records: i32) -> Attempt {
    Attempt {
        producer: Some(Producer { id: ProducerId(1), epoch }),
        base_sequence,
        last_offset_delta: records - 1,
        expected_next_offset: None,
    }
}

fn judge(attempt: Attempt, epoch: i32, batches: &[KnownBatch]) -> Verdict {
    leader().admit(&LOG, &attempt, Some(KnownProducer { epoch, batches }))
}

#[test]
fn a_new_producer_starts_at_sequence_0() {
    assert_eq!(leader().admit(&LOG, &attempt(0, 0, 5), None), Verdict::Append(3));
    assert_eq!(leader().admit(&LOG, &attempt(0, 5, 5), None), Verdict::Refuse(Refusal::ProducerUnknown));
}

#[test]
fn the_next_sequence_is_admitted_and_a_repeated_one_recognised() {
    let known = [batch(0, 80, 10), batch(10, 90, 10)];
    assert_eq!(judge(attempt(0, 20, 1), 0, &known), Verdict::Append(3));
    assert_eq!(judge(attempt(0, 0, 10), 0, &known), Verdict::Duplicate(known[0]));
    assert_eq!(judge(attempt(0, 10, 10), 0, &known), Verdict::Duplicate(known[1]));
}

#[test]
fn a_gap_and_a_forgotten_batch_are_told_apart() {
    let known = [batch(100, 80, 10), batch(110, 90, 10)];
    let gap = Verdict::Refuse(Refusal::SequenceGap { expected: 120 });
    assert_eq!(judge(attempt(0, 121, 1), 0, &known), gap);
    let old = Verdict::Refuse(Refusal::SequenceTooOld { oldest: 100 });
    assert_eq!(judge(attempt(0, 90, 10), 0, &known), old);
    // The same start with another count is not the same batch.
    assert_eq!(judge(attempt(0, 110, 3), 0, &known), old);
}

#[test]
fn sequences_go_round() {
    let known = [batch(i32::MAX - 1, 90, 2)];
    assert_eq!(judge(attempt(0, 0, 1), 0, &known), Verdict::Append(3));
    assert_eq!(judge(attempt(0, 1, 1), 0, &known), Verdict::Refuse(Refusal::SequenceGap { expected: 0 }));
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_starts_over() {
    let known = [batch(0, 90, 10)];
    let fenced = Verdict::Refuse(Refusal::ProducerFenced { current: 2 });
    assert_eq!(judge(attempt(1, 10, 1), 2, &known), fenced);
    assert_eq!(judge(attempt(3, 0, 1), 2, &known), Verdict::Append(3));
    assert_eq!(judge(attempt(3, 10, 1), 2, &known), Verdict::Refuse(Refusal::SequenceGap { expected: 0 }));
    // A fence leaves an epoch without batches.
    assert_eq!(judge(attempt(1, 10, 1), 2, &[]), fenced);
    assert_eq!(judge(attempt(2, 0, 1), 2, &[]), Verdict::Append(3));
}

#[test]
fn a_condition_is_judged_by_the_log_end_and_after_duplicates() {
    let conditional =
        |expected| Attempt { producer: None, expected_next_offset: Some(expected), ..attempt(0, 0, 1) };
    assert_eq!(leader().admit(&LOG, &conditional(100), None), Verdict::Append(3));
    assert_eq!(
        leader().admit(&LOG, &conditional(90), None),
        Verdict::RefuseWhenCommitted(Refusal::OffsetMismatch { next: 100 })
    );
    let known = [batch(0, 90, 10)];
    let again = Attempt { expected_next_offset: Some(90), ..attempt(0, 0, 10) };
    assert_eq!(judge(again, 0, &known), Verdict::Duplicate(known[0]));
}

#[test]
fn below_min_insync_nothing_is_admitted_or_committed() {
    let mut lonely = leads(Durability::Fsync, record(&[1], 2), &log(50, 90, 100));
    let verdict = lonely.admit(&LOG, &Attempt { producer: None, ..attempt(0, 0, 1) }, None);
    assert_eq!(verdict, Verdict::Refuse(Refusal::NotEnoughReplicas { in_sync: 1, min_insync: 2 }));
    assert_eq!(lonely.high_watermark(&LOG), 50);
}

#[test]
fn committed_means_flushed_or_written_as_the_class_says() {
    assert_eq!(leader().high_watermark(&LOG), 90);
    assert_eq!(leads(Durability::Replicated, record(&[1], 1), &LOG).high_watermark(&LOG), 100);
}

/// A history in which each epoch begins at its offset, and the log ends there.
struct Wrote(Vec<(LeaderEpoch, Offset)>, Offset);

impl History for Wrote {
    fn end_of(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let after = self.0.partition_point(|(known, _)| *known <= epoch);
        let end = self.0.get(after).map_or(self.1, |(_, start)| *start);
        (after.checked_sub(1).map_or(epoch, |at| self.0[at].0), end)
    }

    fn last(&self) -> Option<LeaderEpoch> {
        self.0.last().map(|(epoch, _)| *epoch)
    }
}

fn at(log_end: Offset, flushed_end: Offset, last_epoch: LeaderEpoch) -> Position {
    Position { log_end, flushed_end, last_epoch: Some(last_epoch) }
}

/// A follower that has all of an offset subscribes.
fn follows(leader: &mut Leader, broker: i32, subscription: u64, written: Offset, flushed: Offset) {
    let history = Wrote(vec![(2, 0)], 100);
    let position = at(written, flushed, 2);
    let welcome = leader.subscribe(member(broker), subscription, position, &history, &LOG, 0);
    assert_eq!(welcome, Welcome::Follow);
}

fn ends(written: Offset, flushed: Offset) -> Ends {
    Ends { written, flushed }
}

#[test]
fn committed_is_what_every_member_has_and_has_said_in_this_leadership() {
    let all = log(50, 100, 100);
    let mut leader = leads(Durability::Fsync, record(&[1, 2, 3], 2), &log(50, 90, 100));
    assert_eq!(leader.high_watermark(&all), 50, "nobody has said anything yet");
    follows(&mut leader, 2, 11, 100, 80);
    assert_eq!(leader.high_watermark(&all), 50, "3 has not");
    follows(&mut leader, 3, 12, 70, 70);
    assert_eq!((leader.high_watermark(&all), leader.is_settled()), (70, false));
    assert!(leader.acknowledged(BrokerId(3), 12, ends(100, 100), &all, 1));
    assert_eq!(leader.high_watermark(&all), 80, "what 2 has on its disk");
    assert!(!leader.acknowledged(BrokerId(2), 10, ends(100, 100), &all, 1), "another subscription");
    assert_eq!(leader.high_watermark(&all), 80);
    assert!(leader.acknowledged(BrokerId(2), 11, ends(100, 100), &all, 1));
    assert_eq!((leader.high_watermark(&all), leader.is_settled()), (100, true));
}

#[test]
fn a_new_registration_has_nothing_until_it_says_so_and_counts_for_no_older_membership() {
    let mut leader = leads(Durability::Replicated, record(&[1, 2], 2), &log(50, 90, 100));
    follows(&mut leader, 2, 11, 60, 60);
    let again = Member { epoch: 99, ..member(2) };
    let history = Wrote(vec![(2, 0)], 100);
    leader.subscribe(again, 12, at(100, 100, 2), &history, &LOG, 0);
    assert_eq!(leader.high_watermark(&LOG), 50, "the member was another process");
    let welcome = leader.subscribe(member(2), 13, at(100, 100, 2), &history, &LOG, 0);
    assert_eq!(welcome, Welcome::Superseded);
    let mut newer = record(&[1, 2], 2);
    newer.partition_epoch += 1;
    newer.isr[1] = again;
    leader.observe(&newer);
    assert_eq!(leader.high_watermark(&LOG), 100);
}

#[test]
fn who_lags_leaves_and_who_has_caught_up_joins() {
    let mut leader = leads(Durability::Fsync, record(&[1, 2], 1), &LOG);
    follows(&mut leader, 2, 11, 100, 100);
    follows(&mut leader, 3, 12, 99, 99);
    assert_eq!(leader.propose(10, 10), None, "3 has not reached the start of this leadership");
    leader.acknowledged(BrokerId(3), 12, ends(100, 99), &LOG, 10);
    assert_eq!(leader.propose(10, 10), None, "nor on its disk");
    leader.acknowledged(BrokerId(3), 12, ends(100, 100), &LOG, 10);
    leader.grows(&log(90, 110, 110), 0);
    let proposal = leader.propose(11, 10).unwrap();
    assert_eq!(proposal.isr, [member(1)], "2 has said nothing for longer than 10; 3 joins after that");
    assert_eq!((proposal.leader_epoch, proposal.partition_epoch), (3, 7));
    assert_eq!(leader.propose(11, 10), None, "one is on its way");
    leader.decided(&proposal, Outcome::Refused);
    assert_eq!(leader.propose(11, 10), Some(proposal));
    let mut newer = record(&[1], 1);
    newer.partition_epoch += 1;
    leader.observe(&newer);
    assert_eq!(leader.propose(11, 10).unwrap().isr, [member(1), member(3)]);
}

fn from_the_eligible() -> Record {
    Record { eligible: vec![BrokerId(3)], ..record(&[1], 2) }
}

#[test]
fn nobody_joins_a_leader_from_the_eligible_before_it_has_heard_them() {
    let mut leader = leads(Durability::Fsync, from_the_eligible(), &log(100, 100, 100));
    follows(&mut leader, 2, 11, 100, 100);
    assert!(leader.may_lack() && !leader.is_settled(), "what it says of its end another one may know better");
    assert_eq!(leader.propose(0, 10), None);
    follows(&mut leader, 3, 12, 90, 90);
    assert!(!leader.may_lack() && leader.is_settled());
    assert_eq!(leader.propose(0, 10).unwrap().isr, [member(1), member(2)]);

    let mut leader = leads(Durability::Fsync, from_the_eligible(), &LOG);
    leader.observe(&Record { partition_epoch: 8, eligible: Vec::new(), ..record(&[1], 2) });
    assert!(!leader.may_lack(), "it is not eligible any more");
    let mut leader = leads(Durability::Fsync, from_the_eligible(), &LOG);
    assert_eq!((leader.propose(31, 10), leader.may_lack()), (None, false), "it stays away");
}

#[test]
fn a_producer_is_told_of_no_gap_before_the_eligible_are_heard() {
    let mut leader = leads(Durability::Fsync, from_the_eligible(), &log(100, 100, 100));
    let below = Verdict::Refuse(Refusal::NotEnoughReplicas { in_sync: 1, min_insync: 2 });
    assert_eq!(leader.admit(&LOG, &attempt(0, 5, 1), None), below, "others may know it");
    let known = [batch(0, 80, 10)];
    let known = KnownProducer { epoch: 0, batches: &known };
    assert_eq!(leader.admit(&LOG, &attempt(0, 20, 1), Some(known)), below);
    assert!(matches!(leader.admit(&LOG, &attempt(0, 0, 10), Some(known)), Verdict::Duplicate(_)));
    follows(&mut leader, 3, 12, 90, 90);
    let unknown = Verdict::Refuse(Refusal::ProducerUnknown);
    assert_eq!(leader.admit(&LOG, &attempt(0, 5, 1), None), unknown);
}

#[test]
fn one_that_comes_late_and_goes_further_leads_though_another_has_joined() {
    let of_three = |isr: &[i32]| Record { eligible: vec![BrokerId(3)], ..record(isr, 3) };
    let mut leader = leads(Durability::Fsync, of_three(&[1]), &LOG);
    assert_eq!(leader.propose(31, 10), None);
    leader.observe(&Record { partition_epoch: 8, ..of_three(&[1, 2]) });
    let history = Wrote(vec![(2, 0)], 100);
    let late = leader.subscribe(member(3), 12, at(101, 101, 2), &history, &LOG, 40);
    assert_eq!((late, leader.may_lack()), (Welcome::GoesFurther, true));
    assert_eq!(leader.propose(40, 10).unwrap().isr, [member(3)]);
}

#[test]
fn one_of_the_eligible_that_goes_further_is_asked_for_as_the_leader_and_not_cut() {
    let mut leader = leads(Durability::Fsync, from_the_eligible(), &LOG);
    follows(&mut leader, 2, 11, 100, 100);
    let history = Wrote(vec![(2, 0)], 100);
    let further = leader.subscribe(member(3), 12, at(101, 101, 2), &history, &LOG, 0);
    assert_eq!((further, leader.goes_further()), (Welcome::GoesFurther, Some(BrokerId(3))));
    let proposal = leader.propose(0, 10).unwrap();
    assert_eq!(proposal.isr, [member(3)]);
    leader.decided(&proposal, Outcome::Refused);
    assert_eq!((leader.propose(0, 10), leader.propose(0, 10)), (None, Some(proposal)), "in turn, and again");
    let second = leader.subscribe(member(2), 13, at(101, 101, 2), &history, &LOG, 0);
    assert_eq!(
        second,
        Welcome::NotYet,
        "2 is not known to be complete, and may have what 3 alone has beside it"
    );
    leader.observe(&Record { partition_epoch: 8, eligible: Vec::new(), ..record(&[1], 2) });
    let second = leader.subscribe(member(2), 14, at(101, 101, 2), &history, &LOG, 0);
    assert!(matches!(second, Welcome::Diverged { .. }), "there is nobody any more to be heard");
}

#[test]
fn a_log_that_is_cut_before_the_eligible_are_heard_is_noticed() {
    assert!(
        Mutant::CutUnheard
            .is_noticed_by(one_of_the_eligible_that_goes_further_is_asked_for_as_the_leader_and_not_cut)
    );
}

#[test]
fn who_is_not_let_in_holds_up_nobody() {
    let mut leader = leads(Durability::Fsync, record(&[1], 1), &LOG);
    follows(&mut leader, 2, 11, 100, 100);
    follows(&mut leader, 3, 12, 100, 100);
    let first = leader.propose(1, 10).unwrap();
    assert_eq!(first.isr, [member(1), member(2)]);
    leader.decided(&first, Outcome::Refused);
    let second = leader.propose(1, 10).unwrap();
    assert_eq!(second.isr, [member(1), member(3)], "it is the turn of 3");
    leader.decided(&second, Outcome::Refused);
    assert_eq!(leader.propose(1, 10), None);
    assert_eq!(leader.propose(1, 10), Some(first), "and of 2 again");
}

#[test]
fn a_stream_that_blinks_throws_nobody_out_who_had_everything() {
    let hour = 3_600_000;
    let mut leader = leads(Durability::Fsync, record(&[1, 2], 1), &LOG);
    follows(&mut leader, 2, 11, 100, 100);
    leader.unsubscribe(BrokerId(2), 11, hour);
    assert_eq!(leader.propose(hour + 10, 10), None);
    leader.grows(&log(90, 110, 110), hour + 5);
    assert_eq!(leader.propose(hour + 10, 10), None);
    assert_eq!(leader.propose(hour + 11, 10).unwrap().isr, [member(1)]);
}

#[test]
fn an_acknowledgement_of_more_than_was_looked_at_counts() {
    let mut leader = leads(Durability::Replicated, record(&[1, 2], 2), &LOG);
    follows(&mut leader, 2, 11, 100, 100);
    leader.acknowledged(BrokerId(2), 11, ends(110, 110), &LOG, 1);
    assert_eq!(leader.high_watermark(&LOG), 100);
    assert_eq!(leader.high_watermark(&log(100, 100, 110)), 110);
}

#[test]
fn who_may_be_in_sync_is_waited_for_and_not_counted() {
    let all = log(90, 110, 110);
    let mut leader = leads(Durability::Fsync, record(&[1], 2), &LOG);
    follows(&mut leader, 3, 12, 100, 100);
    let proposal = leader.propose(1, 10).unwrap();
    assert_eq!(leader.high_watermark(&all), 90, "one of two is in sync, whatever was asked");
    let mut leader = leads(Durability::Fsync, record(&[1], 1), &LOG);
    follows(&mut leader, 3, 12, 100, 100);
    assert_eq!(leader.propose(1, 10), Some(proposal.clone()));
    assert_eq!(leader.high_watermark(&all), 100, "3 may be in sync by now");
    leader.decided(&proposal, Outcome::Unknown);
    assert_eq!(leader.high_watermark(&all), 100, "and still");
    leader.unsubscribe(BrokerId(3), 12, 3);
    let settles = leader.propose(3, 10).unwrap();
    assert_eq!(
        settles.isr,
        [member(1)],
        "asked for what there is, so that what was asked has no effect any more"
    );
    let mut newer = record(&[1], 1);
    newer.partition_epoch += 1;
    leader.observe(&newer);
    assert_eq!(leader.high_watermark(&all), 110);
}

#[test]
fn who_appends_wait_for_is_named_with_how_long_it_is_silent() {
    let all = log(50, 100, 100);
    let mut leader = leads(Durability::Fsync, record(&[1, 2, 3], 2), &all);
    let late = |behind_ms, silent_ms| Late { behind_ms, silent_ms };
    let named = |leader: &Leader, now_ms| leader.awaited(now_ms, 1_000).into_iter().collect::<Vec<_>>();
    assert_eq!(named(&leader, 1_000), [], "a moment");
    let neither = [(BrokerId(2), late(2_000, 2_000)), (BrokerId(3), late(2_000, 2_000))];
    assert_eq!(named(&leader, 2_000), neither, "nobody was heard of in this leadership");

    follows(&mut leader, 2, 11, 100, 100);
    follows(&mut leader, 3, 12, 70, 70);
    leader.acknowledged(BrokerId(3), 12, ends(90, 90), &all, 3_000);
    assert_eq!(named(&leader, 4_500), [(BrokerId(3), late(4_500, 1_500))], "it was heard, and is behind");
    leader.acknowledged(BrokerId(3), 12, ends(100, 100), &all, 5_000);
    assert_eq!(named(&leader, 90_000), [], "all have all there is, however long nothing comes");

    // A process that has ended has everything, and will not take what comes next.
    leader.unsubscribe(BrokerId(3), 12, 90_000);
    assert_eq!(named(&leader, 91_000), []);
    assert_eq!(named(&leader, 102_000), [(BrokerId(3), late(12_000, 12_000))]);
    let mut newer = record(&[1, 2], 2);
    newer.partition_epoch += 1;
    leader.observe(&newer);
    assert_eq!(named(&leader, 102_000), [], "nobody waits for who is not in sync");
}

#[test]
fn who_has_all_there_is_does_not_lag_however_long_nothing_comes() {
    let mut leader = leads(Durability::Fsync, record(&[1, 2], 1), &LOG);
    follows(&mut leader, 2, 11, 100, 100);
    assert_eq!(leader.propose(1_000, 10), None);
    leader.grows(&log(90, 110, 110), 1_000);
    assert_eq!(leader.propose(1_010, 10), None, "there is something new for 10 only");
    assert_eq!(leader.propose(1_011, 10).unwrap().isr, [member(1)]);
}

#[test]
fn a_follower_that_is_fed_all_the_time_is_in_sync_though_it_is_never_at_the_end() {
    let mut leader = leads(Durability::Fsync, record(&[1, 2], 1), &LOG);
    follows(&mut leader, 2, 11, 100, 100);
    for now in 1..100_u64 {
        let end = 100 + 10 * now as i64;
        leader.acknowledged(BrokerId(2), 11, ends(end - 10, end - 10), &log(90, end, end), now);
        assert_eq!(leader.propose(now, 3), None, "at {now}");
    }
}

#[test]
fn logs_that_part_are_cut_to_where_they_do() {
    // Leader: epoch 1 to 10, 3 to 20. The follower wrote 1 to 10, 2 to 14.
    let (leaders, own) = (Wrote(vec![(1, 0), (3, 10)], 20), Wrote(vec![(1, 0), (2, 10)], 14));
    let mut leader = leads(Durability::Fsync, record(&[1], 1), &log(0, 20, 20));
    let diverged = leader.subscribe(member(2), 1, at(14, 14, 2), &leaders, &log(0, 20, 20), 0);
    assert_eq!(diverged, Welcome::Diverged { epoch: 1, end: 10, log_start: 0 });
    assert_eq!(step(diverged, &own, &log(0, 14, 14)), Step::Cut { to: 10 });
    assert_eq!(leader.subscribe(member(2), 2, at(10, 10, 1), &leaders, &log(0, 20, 20), 0), Welcome::Follow);
    // Longer in the same epoch.
    let longer = leader.subscribe(member(2), 3, at(25, 25, 3), &leaders, &log(0, 20, 20), 0);
    assert_eq!(longer, Welcome::Diverged { epoch: 3, end: 20, log_start: 0 });
    let own = Wrote(vec![(1, 0), (3, 10)], 25);
    assert_eq!(step(longer, &own, &log(0, 25, 25)), Step::Cut { to: 20 });
}

#[test]
fn who_is_behind_the_leaders_start_or_shares_nothing_starts_over() {
    let leaders = Wrote(vec![(3, 50)], 60);
    let begins_late = Log { log_start: 50, ..log(50, 60, 60) };
    let mut leader = leads(Durability::Fsync, record(&[1], 1), &begins_late);
    let late = leader.subscribe(member(2), 1, at(49, 49, 2), &leaders, &begins_late, 0);
    assert_eq!(
        (late, step(late, &leaders, &LOG)),
        (Welcome::StartOver { log_start: 50 }, Step::StartOver { at: 50 })
    );
    let diverged = leader.subscribe(member(2), 1, at(70, 70, 5), &leaders, &begins_late, 0);
    assert_eq!(diverged, Welcome::Diverged { epoch: 3, end: 60, log_start: 50 });
    let own = Wrote(vec![(5, 65)], 70);
    let own_log = Log { log_start: 65, ..log(65, 70, 70) };
    assert_eq!(step(diverged, &own, &own_log), Step::StartOver { at: 50 });
    let stranger = Member { broker: BrokerId(4), epoch: 1 };
    assert_eq!(leader.subscribe(stranger, 1, at(60, 60, 3), &leaders, &begins_late, 0), Welcome::NotAReplica);
}

#[test]
fn a_follower_hears_its_leader_in_its_subscription_only() {
    let mut follower = Follower::new(Durability::Replicated, 3);
    assert!(!follower.hears(3, 1, 10), "it has not subscribed");
    follower.subscribed(1);
    assert!(!follower.hears(2, 1, 10) && !follower.hears(3, 2, 10));
    assert_eq!(follower.high_watermark(&log(5, 5, 8)), 5);
    assert!(follower.hears(3, 1, 10));
    assert_eq!(follower.high_watermark(&log(5, 5, 8)), 8, "as far as it is here");
    follower.unsubscribed();
    assert!(!follower.hears(3, 1, 20));
}

#[test]
fn a_follower_of_class_fsync_knows_nothing_committed_that_is_not_on_its_disk() {
    let mut follower = Follower::new(Durability::Fsync, 3);
    follower.subscribed(1);
    assert!(follower.hears(3, 1, 10));
    let ends = |flushed| Log { log_start: 0, high_watermark: 4, ends: Ends { written: 8, flushed } };
    assert_eq!(follower.high_watermark(&ends(6)), 6);
    assert_eq!(follower.high_watermark(&ends(8)), 8);
}

#[test]
fn holders_are_counted_with_this_replica() {
    let mut leader = leads(Durability::Fsync, record(&[1, 2], 1), &LOG);
    follows(&mut leader, 2, 11, 100, 80);
    let holders = |leader: &Leader, end| {
        leader.holders(&LOG, end).map(|(broker, flushed)| (broker.0, flushed)).collect::<Vec<_>>()
    };
    assert_eq!(holders(&leader, 95), [(1, false), (2, false)]);
    assert!(holders(&leader, 101).is_empty());
    // What is committed is on the disk of whoever is in sync, heard of or not.
    assert_eq!(holders(&leader, 85), [(1, true), (2, true)]);
    let begun = leads(Durability::Fsync, record(&[1, 3], 1), &LOG);
    assert_eq!(holders(&begun, 90), [(1, true), (3, true)]);
    assert_eq!(holders(&begun, 91), [(1, false)]);
}

#[test]
fn a_deletion_waits_for_who_is_in_sync_and_may_be() {
    let start = |start| Log { log_start: start, ..LOG };
    let lacks =
        |leader: &Leader, at| leader.lacks_start(at).into_iter().map(|broker| broker.0).collect::<Vec<_>>();
    let mut leader = leads(Durability::Fsync, record(&[1, 2], 1), &LOG);
    follows(&mut leader, 2, 11, 100, 100);
    follows(&mut leader, 3, 12, 100, 100);
    leader.high_watermark(&start(50));
    assert_eq!(lacks(&leader, 50), [2]);
    assert_eq!(leader.propose(0, 1_000), None, "it still has what was deleted");
    assert!(!leader.begins(BrokerId(2), 10, 50), "another subscription");
    assert!(leader.begins(BrokerId(2), 11, 50) && !leader.begins(BrokerId(2), 11, 50));
    assert!(lacks(&leader, 50).is_empty());
    assert!(leader.begins_everywhere(50));
    let mut few = leader.clone();
    few.observe(&Record { partition_epoch: 8, ..record(&[1, 2], 3) });
    assert!(!few.begins_everywhere(50), "who is eligible may still have it");
    assert!(leader.begins(BrokerId(3), 12, 50));
    assert!(leader.propose(0, 1_000).is_some());
    leader.high_watermark(&start(60));
    assert!(leader.begins(BrokerId(2), 11, 60));
    assert_eq!(lacks(&leader, 60), [3], "it may be in sync by now");
    // Who has left is not waited for.
    leader.observe(&Record { partition_epoch: 8, ..record(&[1, 2], 1) });
    assert!(lacks(&leader, 60).is_empty());
    follows(&mut leader, 2, 13, 100, 100);
    assert_eq!(lacks(&leader, 60), [2], "whatever it said on another stream");
}

#[test]
fn an_append_below_min_insync_is_noticed() {
    assert!(Mutant::AdmitBelowMin.is_noticed_by(below_min_insync_nothing_is_admitted_or_committed));
}

#[test]
fn a_condition_that_is_looked_at_first_is_noticed() {
    assert!(Mutant::ConditionFirst.is_noticed_by(a_condition_is_judged_by_the_log_end_and_after_duplicates));
}
