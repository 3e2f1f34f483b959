#include "cpu/schedule.h"

#include <algorithm>
#include <memory>

#include "cpu/worker.h"

namespace seedbed {
namespace {

// Work is measured in units of about a fifth of the time of one normal (Width::work).
constexpr uint64_t kInlineWork = uint64_t{1} << 17;  // below this a helper costs more than it saves
constexpr uint64_t kMinTaskWork = uint64_t{1} << 17;
constexpr uint64_t kMaxTaskWork = uint64_t{1} << 23;
constexpr uint64_t kTasksPerThread = 8;
constexpr uint64_t kMaxBlock = 256;           // members
constexpr uint64_t kMinBlock = 32;            // rows that small draws fill in one call
constexpr uint64_t kMinVectorMembers = 16;    // fewer would leave lanes of `derive` idle
constexpr uint64_t kScratchKeys = 32 * 1024;  // 256 KiB
constexpr uint64_t kCutAlign = 64;            // elements; whole cache lines from 1-byte items up

uint64_t element_work(const Sampler& s) {
  return static_cast<uint64_t>(width_of(s.kind, s.word_bits)->work);
}

uint64_t row_work(const Draw& draw) {
  return draw.inner * element_work(draw.sampler) + 16 + 8 * draw.levels.size();
}

// The linear order of all work: member blocks, in a block draws, in a draw rows, in a row elements.
// Any stretch of it is a task; every position means the same place whichever task asks.
class Layout {
 public:
  Layout(const Plan& plan, uint64_t members, uint64_t threads) : plan_(plan), members_(members) {
    uint64_t sum = 0;
    starts_.push_back(0);
    for (const Draw& draw : plan.draws) {
      if (draw.inner > 0) sum += draw.batch * row_work(draw);
      starts_.push_back(sum);
    }
    const uint64_t total = sum * members;
    task_work_ = std::clamp(total / (threads * kTasksPerThread), kMinTaskWork, kMaxTaskWork);
    if (threads == 1) task_work_ = std::max<uint64_t>(total, 1);
    tasks_ = (total + task_work_ - 1) / task_work_;
    const uint64_t by_work = std::max(sum == 0 ? 1 : (kMinTaskWork + sum - 1) / sum, kMinBlock);
    const uint64_t by_scratch = std::max(kScratchKeys / plan.nodes.size(), kMinVectorMembers);
    block_ = std::clamp<uint64_t>(std::min(by_work, by_scratch), 1, std::min(kMaxBlock, members));
  }

  uint64_t tasks() const { return tasks_; }
  uint64_t block_members() const { return block_; }

  void execute(uint64_t task, Worker& worker) const {
    const uint64_t member_work = starts_.back(), total = member_work * members_;
    const uint64_t begin = task * task_work_, end = std::min(begin + task_work_, total);
    const uint64_t block_work = member_work * block_;
    for (uint64_t b = begin / block_work; b * block_work < end; ++b) {
      const MemberBlock block = {b * block_, std::min(block_, members_ - b * block_)};
      worker.enter(block);
      const uint64_t first = b * block_work;
      const uint64_t stop = std::min(end - first, block.count * member_work);
      execute_block(worker, block.count, begin > first ? begin - first : 0, stop);
    }
  }

 private:
  void execute_block(Worker& worker, uint64_t members, uint64_t begin, uint64_t end) const {
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), begin / members);
    for (auto d = static_cast<size_t>(after - starts_.begin()) - 1; d < plan_.draws.size(); ++d) {
      const uint64_t first = starts_[d] * members, last = starts_[d + 1] * members;
      if (first >= end) return;
      if (first == last) continue;
      worker.write(d, place(plan_.draws[d], std::max(begin, first) - first),
                   place(plan_.draws[d], std::min(end, last) - first));
    }
  }

  // Where a position inside a draw lies: within a row only where rows are long.
  static Place place(const Draw& draw, uint64_t position) {
    const uint64_t work = row_work(draw);
    const uint64_t offset = position % work / element_work(draw.sampler) / kCutAlign * kCutAlign;
    return {position / work, std::min(offset, draw.inner)};
  }

  const Plan& plan_;
  uint64_t members_;
  std::vector<uint64_t> starts_;  // by draw: the work of one member before it
  uint64_t task_work_;
  uint64_t tasks_;
  uint64_t block_;
};

class PlanRunner : public TaskRunner {
 public:
  PlanRunner(const KernelTable& kernels, const Plan& plan, const Call& call, const Layout& layout)
      : layout_(layout), worker_(kernels, plan, call, layout.block_members()) {}
  void run(uint64_t task) override { layout_.execute(task, worker_); }

 private:
  const Layout& layout_;
  Worker worker_;
};

}  // namespace

void run(const KernelTable& kernels, const Plan& plan, const Call& call, Pool& pool) {
  if (!plan.blocks.empty()) {
    return run(kernels, plan_of_blocks(plan, call.blocks), call, pool);
  }
  const uint64_t members = call.groups * call.size;
  if (members == 0) return;
  for (size_t d = 0; d < plan.draws.size(); ++d) {
    const Draw& draw = plan.draws[d];
    advise_huge_pages(call.outputs[d], members * draw.batch * draw.bytes_per_row());
  }

  uint64_t work = 0;
  for (const Draw& draw : plan.draws) work += draw.inner > 0 ? draw.batch * row_work(draw) : 0;
  const bool alone = work * members < kInlineWork;
  const uint64_t threads =
      alone ? 1 : 1 + static_cast<uint64_t>(std::max<int64_t>(0, pool.helpers()));
  const Layout layout(plan, members, threads);

  run_tasks(layout.tasks(), threads, pool,
            [&] { return std::make_unique<PlanRunner>(kernels, plan, call, layout); });
}

}  // namespace seedbed
