// Samples of thread CPU time, taken in rounds on one thread or on several at once.
#ifndef SEEDBED_BENCHMARKS_ROOFLINE_SAMPLE_H_
#define SEEDBED_BENCHMARKS_ROOFLINE_SAMPLE_H_

#include <time.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cpu/denormals.h"

namespace seedbed {

// Something to time: `run(thread, repeats)` does `units` units of work `repeats` times and returns
// the seconds it took.
struct Item {
  std::string isa, name;
  double units;
  std::function<double(int thread, int repeats)> run;
  int repeats = 1;
  std::vector<double> seconds = {};  // for a unit, one entry a round; the mean over the threads
};

inline double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// An item's `run` from a function to be timed.
template <class Work>
std::function<double(int, int)> timed(Work work) {
  return [work](int thread, int repeats) {
    const double start = cpu_seconds();
    for (int i = 0; i < repeats; ++i) work(thread);
    return cpu_seconds() - start;
  };
}

// Lets threads go on only once all have come.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}
  void wait() {
    const int round = round_.load();
    if (waiting_.fetch_add(1) + 1 == threads_) {
      waiting_.store(0);
      round_.store(round + 1);
    }
    while (round_.load() == round) std::this_thread::yield();
  }

 private:
  const int threads_;
  std::atomic<int> waiting_{0}, round_{0};
};

// Runs every item once a round, so that what disturbs the machine disturbs all of them; on several
// threads, all at the same time. A sample takes about `aim` seconds.
inline void sample(std::vector<Item>& items, int threads, int rounds, double aim) {
  for (Item& item : items) {
    item.run(0, 1);
    const double once = item.run(0, 1);
    item.repeats = std::max(1, static_cast<int>(aim / std::max(once, 1e-9)));
    item.seconds.clear();
  }
  Barrier barrier(threads);
  std::vector<double> took(static_cast<size_t>(threads));
  const auto work = [&](int thread) {
    const FlushDenormals flush;  // as in a run of seedbed
    for (int round = 0; round < rounds; ++round) {
      for (Item& item : items) {
        barrier.wait();
        took[static_cast<size_t>(thread)] = item.run(thread, item.repeats);
        barrier.wait();
        if (thread != 0) continue;
        double total = 0;
        for (const double seconds : took) total += seconds;
        item.seconds.push_back(total / threads / item.repeats / item.units);
      }
    }
  };
  std::vector<std::thread> helpers;
  for (int thread = 1; thread < threads; ++thread) helpers.emplace_back(work, thread);
  work(0);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace seedbed

#endif  // SEEDBED_BENCHMARKS_ROOFLINE_SAMPLE_H_
