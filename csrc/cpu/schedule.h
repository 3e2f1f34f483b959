// Running a plan: from buffers to tasks, on the calling thread and on whichever threads help.
#ifndef SEEDBED_CPU_SCHEDULE_H_
#define SEEDBED_CPU_SCHEDULE_H_

#include "call.h"
#include "cpu/kernels.h"
#include "cpu/tasks.h"
#include "plan.h"

namespace seedbed {

// Fills every output (see `run_tasks` for threads and exceptions).
void run(const KernelTable& kernels, const Plan& plan, const Call& call, Pool& pool);

}  // namespace seedbed

#endif  // SEEDBED_CPU_SCHEDULE_H_
