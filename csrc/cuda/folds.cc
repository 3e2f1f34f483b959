#include "cuda/folds.h"

#include <algorithm>
#include <map>

namespace seedbed::cuda {
namespace {

constexpr uint32_t kMaxSlots = 1u << 15;  // of Fold::to

// A needed node. `parent` counts in the order of nodes, in which parents come first.
struct Step {
  uint32_t parent = 0;
  uint64_t index = 0;
  uint32_t times = 1;
  uint32_t depth = 0;
  uint32_t children = 0;
  bool wanted = false;
  bool merged = false;  // into its only child
  uint32_t slot = 0;
};

// The wanted nodes and all their ancestors, parents first; the root is number 0.
std::vector<Step> needed_steps(const std::vector<Node>& nodes, const std::vector<uint32_t>& wanted,
                               std::vector<uint32_t>& places) {
  std::map<uint32_t, uint32_t> numbers = {{0, 0}};  // by node, which is the order of parents too
  for (uint32_t node : wanted) {
    while (numbers.try_emplace(node, 0).second) node = nodes[node].parent;
  }
  std::vector<Step> steps;
  for (auto& [node, number] : numbers) {
    number = static_cast<uint32_t>(steps.size());
    Step step;
    if (node != 0) {
      step.parent = numbers.at(nodes[node].parent);
      step.index = nodes[node].index;
      ++steps[step.parent].children;
    }
    steps.push_back(step);
  }
  for (const uint32_t node : wanted) {
    places.push_back(numbers.at(node));
    steps[places.back()].wanted = true;
  }
  return steps;
}

void merge_chains(std::vector<Step>& steps) {
  for (size_t i = 1; i < steps.size(); ++i) {
    Step& step = steps[i];
    Step& parent = steps[step.parent];
    const bool alone = step.parent != 0 && parent.children == 1 && !parent.wanted;
    if (alone && parent.index == step.index) {
      step.times = parent.times + 1;
      step.parent = parent.parent;
      parent.merged = true;
    }
    step.depth = steps[step.parent].depth + 1;
  }
}

}  // namespace

FoldProgram make_folds(const std::vector<Node>& nodes, const std::vector<uint32_t>& wanted) {
  std::vector<uint32_t> places;
  std::vector<Step> steps = needed_steps(nodes, wanted, places);
  merge_chains(steps);
  std::vector<std::vector<uint32_t>> stages;
  for (uint32_t i = 1; i < steps.size(); ++i) {
    if (steps[i].merged) continue;
    if (steps[i].depth > stages.size()) stages.resize(steps[i].depth);
    stages[steps[i].depth - 1].push_back(i);
  }

  FoldProgram program = {{}, {}, 1};
  std::vector<uint32_t> free;
  std::vector<uint32_t> parents = {0};  // of the stage
  for (const std::vector<uint32_t>& stage : stages) {
    for (const uint32_t i : stage) {
      Step& step = steps[i];
      const Step& parent = steps[step.parent];
      if (parent.children == 1 && !parent.wanted) {
        step.slot = parent.slot;
      } else if (!free.empty()) {
        step.slot = free.back();
        free.pop_back();
      } else {
        step.slot = program.n_slots++;
      }
      if (step.slot >= kMaxSlots) throw InvalidPlan("too many keys for one launch");
      program.folds.push_back({step.index, step.times, static_cast<uint16_t>(parent.slot),
                               static_cast<uint16_t>(step.slot), i == stage.back()});
    }
    // What the stage read, and nobody else will: in place where it had one child.
    for (const uint32_t i : parents) {
      if (!steps[i].wanted && steps[i].children > 1) free.push_back(steps[i].slot);
    }
    parents = stage;
  }
  for (const uint32_t place : places) {
    program.slots.push_back(static_cast<uint16_t>(steps[place].slot));
  }
  return program;
}

}  // namespace seedbed::cuda
