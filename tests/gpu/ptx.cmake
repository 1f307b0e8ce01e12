# The developer's view of GPU kernels, and what ptxas says of them. Included by tests/CMakeLists.txt.
add_executable(gpu_render gpu/render.c)
target_link_libraries(gpu_render PRIVATE mossc_codegen)
