# A search by several processes: messages, batches that are independent, mpirun.
add_executable(test_mpi tuner/test_mpi.c)
target_link_libraries(test_mpi PRIVATE mossc_tuner PkgConfig::CUNIT m)
target_include_directories(test_mpi PRIVATE ${PROJECT_SOURCE_DIR}/tests/unit)
test_command(tuner/test_mpi test_mpi)
if(NOT SANITIZE)
  test_command(tuner/mpi bash tests/tuner/mpi.sh $<TARGET_FILE:mossc>)
  set_tests_properties(tuner/mpi PROPERTIES LABELS long)
endif()
