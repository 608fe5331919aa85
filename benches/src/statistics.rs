//! Medians over rounds. The machine may be shared: the spread is shown beside each of them.

use std::time::Duration;

/// What several rounds gave.
#[derive(Debug, Clone)]
pub struct Rounds {
    sorted: Vec<f64>,
}

impl Rounds {
    /// At least one figure is needed.
    pub fn new(mut figures: Vec<f64>) -> Self {
        assert!(!figures.is_empty(), "a median of nothing");
        figures.sort_by(f64::total_cmp);
        Self { sorted: figures }
    }

    /// The middle one, or the upper of the two in the middle.
    pub fn median(&self) -> f64 {
        self.sorted[self.sorted.len() / 2]
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// What `percent` of the figures do not exceed.
    pub fn percentile(&self, percent: usize) -> f64 {
        let at = (self.sorted.len() * percent).div_ceil(100);
        self.sorted[at.max(1) - 1]
    }

    /// The least and the greatest.
    pub fn range(&self) -> (f64, f64) {
        (self.sorted[0], self.sorted[self.sorted.len() - 1])
    }
}

/// Lets two contestants take turns, `count` rounds each, the peer first.
pub fn take_turns<E>(
    count: usize,
    mut peer: impl FnMut() -> Result<f64, E>,
    mut ours: impl FnMut() -> Result<f64, E>,
) -> Result<(Rounds, Rounds), E> {
    let (mut of_peer, mut of_ours) = (Vec::new(), Vec::new());
    for _ in 0..count {
        of_peer.push(peer()?);
        of_ours.push(ours()?);
    }
    Ok((Rounds::new(of_peer), Rounds::new(of_ours)))
}

/// Calls that are not counted: they pay for what is compiled, loaded or allocated late.
const WARM_UP_SHARE: usize = 10;

/// Lets contestants take turns call by call; medians in microseconds, one for each third of the run.
///
/// The spread of single calls would say nothing: only that of the thirds is kept.
pub fn call_by_call<E, const N: usize>(
    calls: usize,
    mut contestants: [&mut dyn FnMut() -> Result<Duration, E>; N],
) -> Result<[Rounds; N], E> {
    for _ in 0..calls / WARM_UP_SHARE {
        for call in &mut contestants {
            call()?;
        }
    }
    let mut thirds = [const { Vec::new() }; N];
    for _ in 0..3 {
        let mut figures = [const { Vec::new() }; N];
        for _ in 0..calls.div_ceil(3) {
            for (call, figures) in contestants.iter_mut().zip(&mut figures) {
                figures.push(call()?.as_secs_f64() * 1e6);
            }
        }
        for (third, figures) in thirds.iter_mut().zip(figures) {
            third.push(Rounds::new(figures).median());
        }
    }
    Ok(thirds.map(Rounds::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        let rounds = Rounds::new(vec![9.0, 1.0, 5.0]);
        assert_eq!((rounds.median(), rounds.range()), (5.0, (1.0, 9.0)));
    }

    #[test]
    fn a_percentile_is_a_figure_that_was_measured() {
        let rounds = Rounds::new((1..=200).map(f64::from).collect());
        assert_eq!((rounds.percentile(99), rounds.percentile(100)), (198.0, 200.0));
        assert_eq!(Rounds::new(vec![7.0]).percentile(99), 7.0);
    }

    #[test]
    fn contestants_take_turns_and_the_first_calls_do_not_count() {
        let order = std::cell::RefCell::new(Vec::new());
        let call = |name: char| {
            order.borrow_mut().push(name);
            // The warm-up of ten calls has one round; it would be seen in the greatest third.
            let took = if order.borrow().len() <= 2 { 1000 } else { u64::from(u32::from(name)) };
            Ok::<_, ()>(Duration::from_micros(took))
        };
        let [a, b] = call_by_call(10, [&mut || call('a'), &mut || call('b')]).expect("no call fails");
        assert_eq!((a.range(), b.range()), ((97.0, 97.0), (98.0, 98.0)));
        assert!(order.borrow().chunks(2).all(|turn| turn == ['a', 'b']));
    }
}
