// Sharing the tasks of one run between the calling thread and whichever threads help.
#ifndef SEEDBED_CPU_TASKS_H_
#define SEEDBED_CPU_TASKS_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace seedbed {

// Threads that may help. `schedule` may run the function at any time, also after the call that
// scheduled it has returned, or in the calling thread.
class Pool {
 public:
  virtual ~Pool() = default;
  virtual int64_t helpers() const = 0;
  virtual void schedule(std::function<void()> function) = 0;
};

// One thread's part of a run, made and destroyed on that thread.
class TaskRunner {
 public:
  virtual ~TaskRunner() = default;
  virtual void run(uint64_t task) = 0;
};

// Runs the tasks 0 ... `tasks` - 1, each once, on at most `threads` threads, this one among them;
// each makes itself a runner with its first task. Never waits for a helper that has not started, so
// a busy pool, or one whose only thread is the calling one, cannot deadlock. An exception on any
// thread is rethrown here.
void run_tasks(uint64_t tasks, uint64_t threads, Pool& pool,
               const std::function<std::unique_ptr<TaskRunner>()>& make_runner);

// Advice for a fresh output buffer: first touch costs more than the numbers, and huge pages make it
// far cheaper.
void advise_huge_pages(void* buffer, uint64_t bytes);

}  // namespace seedbed

#endif  // SEEDBED_CPU_TASKS_H_
