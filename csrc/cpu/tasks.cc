#include "cpu/tasks.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "cpu/denormals.h"

namespace seedbed {
namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr uint64_t kHugeOutput = uint64_t{4} << 20;

// What the threads of one run share. A helper that starts after the last task was taken touches
// nothing but the counter, which it keeps alive.
struct Shared {
  uint64_t tasks;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::condition_variable finished;
  uint64_t done = 0;         // guarded by mutex
  std::exception_ptr error;  // guarded by mutex
};

void take_tasks(Shared& shared, const std::function<std::unique_ptr<TaskRunner>()>& make_runner,
                uint64_t task) {
  uint64_t completed = 0;
  std::exception_ptr error;
  std::unique_ptr<TaskRunner> runner;
  const FlushDenormals flush;
  for (; task < shared.tasks; task = shared.next.fetch_add(1, std::memory_order_relaxed)) {
    ++completed;
    if (shared.failed.load(std::memory_order_relaxed)) continue;
    try {
      if (!runner) runner = make_runner();
      runner->run(task);
    } catch (...) {
      error = std::current_exception();
      shared.failed.store(true, std::memory_order_relaxed);
    }
  }
  runner.reset();
  const std::lock_guard<std::mutex> lock(shared.mutex);
  shared.done += completed;
  if (error && !shared.error) shared.error = error;
  if (shared.done == shared.tasks) shared.finished.notify_all();
}

}  // namespace

void run_tasks(uint64_t tasks, uint64_t threads, Pool& pool,
               const std::function<std::unique_ptr<TaskRunner>()>& make_runner) {
  if (tasks == 0) return;
  const auto shared = std::make_shared<Shared>();
  shared->tasks = tasks;
  const uint64_t helpers = std::min(threads - 1, tasks - 1);
  const auto help = [shared, &make_runner] {
    // The reference lives as long as a task is unfinished, since this call waits for all that were
    // taken. Without a task it must not be touched.
    const uint64_t task = shared->next.fetch_add(1, std::memory_order_relaxed);
    if (task < shared->tasks) take_tasks(*shared, make_runner, task);
  };
  try {
    for (uint64_t i = 0; i < helpers; ++i) pool.schedule(help);
  } catch (...) {
    // Fewer helpers, or none: not a reason to fail, and those that started use what lives here.
  }
  help();

  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == shared->tasks; });
  if (shared->error) std::rethrow_exception(shared->error);
}

void advise_huge_pages(void* buffer, uint64_t bytes) {
#if defined(__linux__)
  if (bytes < kHugeOutput) return;
  const auto address = reinterpret_cast<uintptr_t>(buffer);
  const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + bytes) / kHugePage * kHugePage;
  // A kernel without huge pages refuses it, which changes nothing.
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)buffer, (void)bytes;
#endif
}

}  // namespace seedbed
