/* The names of counts and arguments of launches, from launch.def. */
#include "launch.h"

static const char *const counts[N_COUNTS] = {
#define LAUNCH_COUNT(id, text) text,
#include "launch.def"
#undef LAUNCH_COUNT
};

static const char *const args[N_ARG_KINDS] = {
#define LAUNCH_ARG(id, text) text,
#include "launch.def"
#undef LAUNCH_ARG
};

const char *launch_count_text(LaunchCount count) { return counts[count]; }
const char *launch_arg_text(LaunchArgKind kind) { return args[kind]; }
